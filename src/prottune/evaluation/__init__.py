"""Records and a model -> honest scores, a floor to beat, and a decision."""
