"""MURAL: one embedding for images and for texts in many languages.

Source: Jain et al. 2021, "MURAL: Multimodal, Multitask Representations Across Languages".
"""
