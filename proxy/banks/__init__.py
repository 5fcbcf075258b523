"""Reference banks: everything a proxy needs of its open references, in one folder; and estimates from them."""
