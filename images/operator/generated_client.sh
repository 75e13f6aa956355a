# Sourced by install.sh. 74 MB of the Kubernetes client are the sources of its generated models: bytecode is enough.
$compile -b kubernetes
find kubernetes -name '*.py' -delete
