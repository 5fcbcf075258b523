"""Figures, and a sweep as one HTML page."""
