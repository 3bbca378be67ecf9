"""xgboost-hospital: a Flower app."""
