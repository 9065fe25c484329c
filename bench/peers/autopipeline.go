package peers

import (
	"errors"

	"github.com/redis/go-redis/v9"
)

// openAutoPipeline is raw on the pipelines that go-redis makes of concurrent
// commands: on its blocking face, with default options, or with full duplex as well.
func openAutoPipeline[V any](fullDuplex bool) Open[V] {
	return func(addr string, load Loader[V]) (Peer[V], error) {
		client := redis.NewClient(&redis.Options{Addr: addr})
		options := redis.DefaultBlockingAutoPipelineOptions()
		options.FullDuplex = fullDuplex
		pipeliner, err := client.AutoPipelineWithOptions(options)
		if err != nil {
			return nil, errors.Join(err, client.Close())
		}
		return &raw[V]{redis: pipeliner, load: load, close: client.Close}, nil // which closes the pipeliner too
	}
}
