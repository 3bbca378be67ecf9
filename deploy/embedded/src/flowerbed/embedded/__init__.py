"""Flowerbed's services and real servers, supervised on one machine."""
