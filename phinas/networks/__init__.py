"""What a network is: frozen descriptions, their exact cost, and the torch modules they build."""
