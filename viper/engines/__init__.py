"""The engines: five small interfaces (`viper.engines.base`) and their implementations."""
