"""How many replicas the measured load needs: arrivals, service time, capacity model, decision."""
