"""Ordinary Flower apps that ship with Flowerbed."""
