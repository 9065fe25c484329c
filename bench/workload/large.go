package workload

// Large reads values of 64 KiB that are in Redis.
func Large(e *Env) (*Section, error) {
	const keys = 100
	levels, err := hits(e, readers, []int{1, 128}, keys, loadBlob)
	if err != nil {
		return nil, err
	}
	s := &Section{
		Title: "Hits of 64 KiB",
		Text:  "The same, with a number and 64 KiB of bytes that cannot be compressed, of 100 keys.",
	}
	s.compare("hits of 64 KiB", levels)
	return s, nil
}
