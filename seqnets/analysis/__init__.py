"""Looking inside: samples and pictures that a run makes of its model, as callbacks that write into the run's folder."""
