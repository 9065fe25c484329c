package proto_test

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"
	pb "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := proto.Codec{}.Marshal(v)
	require.NoError(t, err)
	return b
}

// requireKept requires m to come back as it is.
func requireKept[M pb.Message](t testing.TB, m M) {
	t.Helper()
	var got M
	require.NoError(t, proto.Codec{}.Unmarshal(marshal(t, m), &got))
	require.Equal(t, reflect.ValueOf(m).IsNil(), reflect.ValueOf(got).IsNil())
	require.True(t, pb.Equal(m, got), "%v, not %v", got, m)
}

func document(t testing.TB) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(map[string]any{
		"name": "Ada", "born": 1815, "dead": true, "none": nil, "tags": []any{"x", 1.5, map[string]any{"deep": "er"}}, "empty": map[string]any{},
	})
	require.NoError(t, err)
	return s
}

// schema is a message with groups of nested and repeated fields, maps and options: the one that
// describes descriptor.proto itself.
func schema() *descriptorpb.FileDescriptorProto {
	return protodesc.ToFileDescriptorProto(descriptorpb.File_google_protobuf_descriptor_proto)
}

func TestCodec_KeepsMessages(t *testing.T) {
	requireKept(t, document(t))
	requireKept(t, schema())
	requireKept(t, timestamppb.New(time.Unix(1_700_000_000, 5)))
	requireKept(t, wrapperspb.Int64(math.MinInt64))
	requireKept(t, wrapperspb.Double(math.NaN()))
	requireKept(t, wrapperspb.Bytes([]byte{0, 0xff}))
	requireKept(t, wrapperspb.String(""))
	requireKept(t, &emptypb.Empty{})
	requireKept(t, &fieldmaskpb.FieldMask{Paths: []string{"", "a"}})
	packed, err := anypb.New(document(t))
	require.NoError(t, err)
	requireKept(t, packed)
}

func TestCodec_TellsNilFromEmpty(t *testing.T) {
	require.Nil(t, marshal(t, (*emptypb.Empty)(nil)))
	require.NotNil(t, marshal(t, &emptypb.Empty{}))
	requireKept(t, (*structpb.Struct)(nil))
	got := &emptypb.Empty{}
	require.NoError(t, proto.Codec{}.Unmarshal(nil, &got))
	require.Nil(t, got)
}

func TestCodec_KeepsFieldsItDoesNotKnow(t *testing.T) {
	future := wrapperspb.String("x")
	future.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 7))
	requireKept(t, future)
}

func TestUnmarshal_RefusesAnotherMessage(t *testing.T) {
	var d *durationpb.Duration // alike but for the name
	err := proto.Codec{}.Unmarshal(marshal(t, timestamppb.New(time.Unix(1, 2))), &d)
	require.EqualError(t, err, "proto: google.protobuf.Duration: not written by this codec, or another message")
	require.Nil(t, d)
}

// as returns a stored message whose type has become that of m since.
func as(t *testing.T, m, stored pb.Message) []byte {
	t.Helper()
	return append(marshal(t, m)[:4], marshal(t, stored)[4:]...)
}

func TestUnmarshal_RefusesWhatTheFieldCannotHoldAnyMore(t *testing.T) {
	const want = "the message holds what this type would not write"
	var i32 *wrapperspb.Int32Value
	var u32 *wrapperspb.UInt32Value
	var b *wrapperspb.BoolValue
	for name, err := range map[string]error{
		"5 of 2^32+5":       proto.Codec{}.Unmarshal(as(t, wrapperspb.Int32(1), wrapperspb.Int64(1<<32+5)), &i32),
		"-2^31 of 2^31":     proto.Codec{}.Unmarshal(as(t, wrapperspb.Int32(1), wrapperspb.Int64(1<<31)), &i32),
		"2^32-1 of -1":      proto.Codec{}.Unmarshal(as(t, wrapperspb.UInt32(1), wrapperspb.Int64(-1)), &u32),
		"true of 300":       proto.Codec{}.Unmarshal(as(t, wrapperspb.Bool(true), wrapperspb.Int64(300)), &b),
		"the last of three": proto.Codec{}.Unmarshal(append(marshal(t, wrapperspb.Int32(1)), 8, 2, 8, 3), &i32),
	} {
		require.ErrorContains(t, err, want, name)
	}
	require.Nil(t, i32)
	require.Nil(t, u32)
	require.Nil(t, b)
	require.NoError(t, proto.Codec{}.Unmarshal(as(t, wrapperspb.Int32(1), wrapperspb.Int64(-7)), &i32))
	require.EqualValues(t, -7, i32.Value)
}

func TestUnmarshal_RefusesWhatIsNoMessage(t *testing.T) {
	b := marshal(t, schema())
	for name, data := range map[string][]byte{
		"nothing": {}, "half a hash": b[:3], "half a message": b[:len(b)/2], "a message and more": append(b[:len(b):len(b)], 0xff),
		"no hash": b[4:], "JSON": []byte(`{"name":"x"}`), "text that is no UTF-8": append(marshal(t, document(t))[:4], 10, 3, 10, 1, 0xff),
	} {
		got, s := (*descriptorpb.FileDescriptorProto)(nil), (*structpb.Struct)(nil)
		require.Error(t, proto.Codec{}.Unmarshal(data, &got), name)
		require.Error(t, proto.Codec{}.Unmarshal(data, &s), name)
		require.Nil(t, got)
		require.Nil(t, s)
	}
}

func TestCodec_NamesTheTypeItRefuses(t *testing.T) {
	dynamic := dynamicpb.NewMessage((&emptypb.Empty{}).ProtoReflect().Descriptor())
	var message pb.Message = &emptypb.Empty{}
	for want, c := range map[string]struct {
		value  any
		target any
	}{
		"proto: int is no pointer to a generated message":                {7, new(int)},
		"proto: *int is no pointer to a generated message":               {new(int), new(*int)},
		"proto: []*emptypb.Empty is no pointer to a generated message":   {[]*emptypb.Empty{}, new([]*emptypb.Empty)},
		"proto: **emptypb.Empty is no pointer to a generated message":    {new(*emptypb.Empty), new(**emptypb.Empty)},
		"proto: *dynamicpb.Message is no pointer to a generated message": {dynamic, &dynamic},
		"proto: emptypb.Empty is kept as a *emptypb.Empty only":          {reflect.ValueOf(&emptypb.Empty{}).Elem().Interface(), &emptypb.Empty{}},
	} {
		_, err := proto.Codec{}.Marshal(c.value)
		require.EqualError(t, err, want)
		require.EqualError(t, proto.Codec{}.Unmarshal(nil, c.target), want)
		require.EqualError(t, proto.Codec{}.Unmarshal([]byte{1}, c.target), want)
		require.EqualError(t, proto.Codec{}.CheckType(reflect.TypeOf(c.target).Elem()), want)
	}
	require.EqualError(t, proto.Codec{}.Unmarshal([]byte{1}, &message), "proto: protoreflect.ProtoMessage is no pointer to a generated message")
	require.EqualError(t, proto.Codec{}.Unmarshal([]byte{1}, 7), "proto: cannot decode into int")
	_, err := proto.Codec{}.Marshal(nil)
	require.EqualError(t, err, "proto: <nil> is no pointer to a generated message")
	require.NoError(t, proto.Codec{}.CheckType(reflect.TypeFor[*structpb.Struct]()))
}

func TestMarshal_NamesTheMessageThatIsIncomplete(t *testing.T) {
	_, err := proto.Codec{}.Marshal(&descriptorpb.UninterpretedOption_NamePart{}) // lacks required fields
	require.ErrorContains(t, err, "proto: google.protobuf.UninterpretedOption.NamePart: ")
	_, err = proto.Codec{}.Marshal(wrapperspb.String("secret\xff"))
	require.ErrorContains(t, err, "proto: google.protobuf.StringValue: ")
	require.NotContains(t, err.Error(), "secret")
}

func TestDeterministic_MakesEqualMessagesEqualBytes(t *testing.T) {
	fields := make(map[string]any)
	for i := range 100 {
		fields[fmt.Sprint(i)] = i
	}
	c := proto.Codec{Deterministic: true}
	var first []byte
	for range 20 {
		s, err := structpb.NewStruct(fields)
		require.NoError(t, err)
		b, err := c.Marshal(s)
		require.NoError(t, err)
		if first == nil {
			first = b
		}
		require.Equal(t, first, b)
	}
}

func TestCodec_IsForManyGoroutines(t *testing.T) {
	m := document(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				requireKept(t, m)
			}
		})
	}
	group.Wait()
}

// process returns a wrapper of load in a Cache of its own, as each process of a fleet has one.
func process[M pb.Message](t *testing.T, server *miniredis.Miniredis, load func(int) M) *readthrough.ReadThrough[int, M] {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	cache, err := readthrough.NewCache(client, readthrough.WithRedisTimeout(5*time.Second), readthrough.WithCodec(proto.Codec{}))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, cache.Close())
		require.NoError(t, client.Close())
	})
	rt, err := readthrough.New(cache, "row", func(_ context.Context, n int) (M, error) { return load(n), nil }, readthrough.Int)
	require.NoError(t, err)
	return rt
}

func requireGet[M pb.Message](t *testing.T, rt *readthrough.ReadThrough[int, M], want M, source readthrough.Source) {
	t.Helper()
	got, info, err := rt.GetInfo(t.Context(), 1)
	require.NoError(t, err)
	require.True(t, pb.Equal(want, got), "%v", got)
	require.Equal(t, source, info.Source, "source: %v", info.Source)
}

func TestNew_ServesAFleetAndItsNextRelease(t *testing.T) {
	server := miniredis.RunT(t)
	load := func(int) *structpb.Struct { return document(t) }
	requireGet(t, process(t, server, load), document(t), readthrough.SourceLoaded)
	requireGet(t, process(t, server, load), document(t), readthrough.SourceHit)

	next := process(t, server, func(int) *wrapperspb.StringValue { return wrapperspb.String("x") })
	requireGet(t, next, wrapperspb.String("x"), readthrough.SourceLoaded)
	requireGet(t, next, wrapperspb.String("x"), readthrough.SourceHit)
	require.EqualValues(t, 1, next.Stats().Corrupt)
}

func TestNew_KeepsANilMessage(t *testing.T) {
	server := miniredis.RunT(t)
	rt := process(t, server, func(int) *structpb.Struct { return nil })
	for _, source := range []readthrough.Source{readthrough.SourceLoaded, readthrough.SourceHit} {
		got, info, err := rt.GetInfo(t.Context(), 1)
		require.NoError(t, err)
		require.Nil(t, got)
		require.Equal(t, source, info.Source)
	}
}

// FuzzUnmarshal gives the codec any bytes: what it accepts, it writes and reads again alike.
func FuzzUnmarshal(f *testing.F) {
	f.Add(marshal(f, document(f))[4:])
	f.Add(marshal(f, timestamppb.New(time.Unix(1, 2)))[4:])
	f.Add(marshal(f, wrapperspb.Int64(-1))[4:])
	f.Add([]byte{8, 0x80, 0})
	f.Fuzz(func(t *testing.T, message []byte) {
		requireStable(t, schema(), message)
		requireStable(t, document(t), message)
		requireStable(t, wrapperspb.Int32(1), message)
	})
}

// requireStable reads message as one of the type of m.
func requireStable[M pb.Message](t *testing.T, m M, message []byte) {
	t.Helper()
	data := append(marshal(t, m)[:4:4], message...)
	var got M
	if err := (proto.Codec{}).Unmarshal(data, &got); err != nil {
		require.True(t, reflect.ValueOf(got).IsNil())
		return
	}
	require.Len(t, marshal(t, got), len(data))
	requireKept(t, got)
}

func BenchmarkCodec(b *testing.B) {
	m := document(b)
	data := marshal(b, m)
	b.Run("marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			marshal(b, m)
		}
	})
	b.Run("marshal-by-protobuf-alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := pb.Marshal(m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var got *structpb.Struct
			if err := (proto.Codec{}).Unmarshal(data, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unmarshal-by-protobuf-alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := pb.Unmarshal(data[4:], new(structpb.Struct)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
