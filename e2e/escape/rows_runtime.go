package escape

func runtimeRows() []Attack {
	return []Attack{
		{ID: 1, Section: "2A", Source: "CVE-2019-5736", Title: "a step opens every program that runs, the executor too, and writes to it",
			Want: []Outcome{Contained}, Step: "RUN /probe 1 exe"},
	}
}
