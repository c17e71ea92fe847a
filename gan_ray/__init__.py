"""GAN-based image anomaly detection on Ray."""
