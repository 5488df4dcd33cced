"""The map on the sphere: neighbours, graph, layout, the UMAP model, its quality and its regions."""
