"""Trained students to take home: .npz files, each with a card that says what it is."""
