package main

// submits measures POST /requests up to its answer with the result, of short work and of long
// work that the client waits for.
func submits(p plan, floor, product *child) ([]pair, error) {
	stop, err := profile(p.profiles, "submit-", floor, product)
	if err != nil {
		return nil, err
	}
	var scenarios []scenario
	for _, action := range []string{actionShort, actionLong} {
		open := func(server *child) (client, error) { return call(server.addr, action) }
		for _, clients := range p.callers {
			scenarios = append(scenarios, scenario{action, clients, open})
		}
	}
	p.warm, p.span = p.calling/2, p.calling
	pairs, err := compare(p, p.submits, floor, product, scenarios)
	return pairs, first(err, stop())
}
