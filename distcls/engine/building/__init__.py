"""Recipe -> objects, the only room that does it: nothing below receives the recipe, only plain values from here."""
