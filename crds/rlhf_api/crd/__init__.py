"""The CustomResourceDefinition that the models stand for, with the rules that an API server checks."""
