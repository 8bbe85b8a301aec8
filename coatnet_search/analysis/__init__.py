"""The record -> answers: fronts, noise, importance, scaling, audit, choice. pandas; no torch, no Ray."""
