"""Provides samples and plots of trained models, mostly as callbacks that write into the run's folder."""
