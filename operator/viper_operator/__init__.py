"""The controller: carries out the plans of `viper.plan` as Kubernetes Jobs."""
