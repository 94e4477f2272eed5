"""Generated tissue whose nuclei and nucleoli are known."""
