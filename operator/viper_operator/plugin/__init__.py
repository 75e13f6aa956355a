"""`kubectl viper`: what people do with iterations on a cluster."""
