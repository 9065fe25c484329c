package workload

// RegisterChildren registers what the processes of the fleet run. It is called
// before redistest.RunIfChild.
func RegisterChildren() {}
