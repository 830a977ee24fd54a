"""How figures and pages look: what every report is made of."""
