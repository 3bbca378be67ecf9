"""`flowerbed`, a thin client of the gateway and of the local stack."""
