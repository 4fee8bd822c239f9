"""Our objects as the API server knows them: typed views, conditions and reasons, and the CRDs made from the model."""
