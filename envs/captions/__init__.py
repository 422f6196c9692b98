"""Pictures with captions: what is really seen in a rendered view, said in five languages."""
