"""From what a run did to a policy that allows it."""
