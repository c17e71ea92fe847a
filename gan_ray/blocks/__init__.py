"""Networks and layers that several systems share."""
