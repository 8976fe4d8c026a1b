"""How commands speak to a person: in lines, in drawings, and in trees that are followed to their end."""
