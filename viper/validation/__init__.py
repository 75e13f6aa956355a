"""Quality assurance: which samples train the model, which are held out, and why the others are neither."""
