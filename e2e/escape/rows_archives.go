package escape

func archiveRows() []Attack { return nil }
