// A gRPC client and server on grpc-go. They speak tests/proto/greeter.proto without generated code, and say what the
// Rust peer's `load` and `serve` say.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	sayHello  = "/evenkeel.test.Greeter/SayHello"
	health    = "/grpc.health.v1.Health/Check"
	tellEvery = 50 * time.Millisecond
	// A call without an answer for so long is an error of its own: nothing in a test holds a call so long.
	noAnswer = 30 * time.Second
)

// raw passes messages as the bytes that they are.
type raw struct{}

func (raw) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }
func (raw) Unmarshal(bytes []byte, message any) error {
	*message.(*[]byte) = append([]byte(nil), bytes...)
	return nil
}
func (raw) Name() string { return "proto" }

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("load or serve?")
	}
	var err error
	switch os.Args[1] {
	case "load":
		err = load(os.Args[2:])
	case "serve":
		err = serve(os.Args[2:])
	default:
		err = fmt.Errorf("load or serve, not %q", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func askedToStop() context.Context {
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	return stop
}

type tally struct {
	mutex  sync.Mutex
	Calls  map[string]int `json:"calls"`
	Errors map[string]int `json:"errors"`
	SeenAs map[string]int `json:"seen_as"`
	told   string
}

func (t *tally) count(reply []byte, err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if err != nil {
		t.Errors[fmt.Sprintf("%v: %v", status.Code(err), status.Convert(err).Message())]++
		return
	}
	fields := strings(reply)
	t.Calls[fields[1]]++
	t.SeenAs[fields[2]]++
}

func (t *tally) tell(keyword string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	now, err := json.Marshal(t)
	if err != nil {
		log.Fatal(err)
	}
	if string(now) != t.told || keyword != "tally" {
		fmt.Println(keyword, string(now))
		t.told = string(now)
	}
}

// strings gives the length-delimited fields of a message by number.
func strings(message []byte) map[protowire.Number]string {
	fields := map[protowire.Number]string{}
	for len(message) > 0 {
		number, kind, length := protowire.ConsumeField(message)
		if length < 0 {
			log.Fatalf("not a protobuf message: %v", protowire.ParseError(length))
		}
		if kind == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(message)
			value, _ := protowire.ConsumeBytes(message[tag:])
			fields[number] = string(value)
		}
		message = message[length:]
	}
	return fields
}

func load(arguments []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	to := flags.String("to", "", "where to")
	rate := flags.Int("rate", 200, "calls a second")
	calls := flags.Int("calls", 0, "ends after so many (0: when asked to stop)")
	wait := flags.Bool("wait-for-ready", false, "calls wait for a server instead of failing")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	connection, err := grpc.NewClient("passthrough:///"+*to,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.WaitForReady(*wait)))
	if err != nil {
		return err
	}
	defer connection.Close()

	t := &tally{Calls: map[string]int{}, Errors: map[string]int{}, SeenAs: map[string]int{}}
	stop := askedToStop()
	tick := time.NewTicker(time.Second / time.Duration(*rate))
	tell := time.NewTicker(tellEvery)
	var inFlight sync.WaitGroup
	for begun := 0; stop.Err() == nil && (*calls == 0 || begun < *calls); {
		select {
		case <-stop.Done():
		case <-tell.C:
			t.tell("tally")
		case <-tick.C:
			begun++
			inFlight.Go(func() {
				deadline, cancel := context.WithTimeout(context.Background(), noAnswer)
				defer cancel()
				request := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "go")
				var reply []byte
				err := connection.Invoke(deadline, sayHello, &request, &reply)
				t.count(reply, err)
			})
		}
	}
	inFlight.Wait()
	t.tell("done")
	return nil
}

// previousAttempts is what gRPC's retries say of themselves: how often the call has been sent before.
func previousAttempts(call context.Context) int {
	fields := metadata.ValueFromIncomingContext(call, "grpc-previous-rpc-attempts")
	if len(fields) != 1 {
		return 0
	}
	attempts, err := strconv.Atoi(fields[0])
	if err != nil {
		log.Fatalf("grpc-previous-rpc-attempts: %v", err)
	}
	return attempts
}

func serve(arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := flags.String("listen", "", "address")
	name := flags.String("name", "", "what the replies call this server")
	age := flags.Duration("max-connection-age", 0, "says GOAWAY on a connection of that age (0: never)")
	fails := flags.Int("fail-attempts", 0, "so many attempts of each call get UNAVAILABLE")
	serving := flags.Uint64("serving-status", 0, "the answer to health checks, as grpc.health.v1 has it (0: none)")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: *age,
	}), grpc.UnknownServiceHandler(
		func(_ any, stream grpc.ServerStream) error {
			var request []byte
			if err := stream.RecvMsg(&request); err != nil {
				return err
			}
			if method, _ := grpc.MethodFromServerStream(stream); method == health {
				if *serving == 0 {
					return status.Error(codes.Unimplemented, "no health checks")
				}
				reply := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), *serving)
				return stream.SendMsg(&reply)
			}
			if previousAttempts(stream.Context()) < *fails {
				return status.Error(codes.Unavailable, "not yet")
			}
			seen := ""
			if client, ok := peer.FromContext(stream.Context()); ok {
				seen, _, _ = net.SplitHostPort(client.Addr.String())
			}
			reply := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), *name)
			reply = protowire.AppendString(protowire.AppendTag(reply, 2, protowire.BytesType), seen)
			reply = protowire.AppendVarint(protowire.AppendTag(reply, 3, protowire.VarintType), 1)
			return stream.SendMsg(&reply)
		}))
	fmt.Println("ready", listener.Addr())
	go func() {
		<-askedToStop().Done()
		server.GracefulStop()
	}()
	return server.Serve(listener)
}
