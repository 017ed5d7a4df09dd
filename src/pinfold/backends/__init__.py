"""Back ends: the ways in which a judged call is carried out. They know plans, not rules."""
