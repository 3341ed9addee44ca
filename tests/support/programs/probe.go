// What tests run in pods of a real node. Each argument is one thing to do, in order; the first that fails ends it with code 1:
//
//	say=TEXT        a line on standard output
//	message=TEXT    the pod's termination message
//	who             a line with its user
//	write=PATH      a file; "refused=PATH" where it must not be possible
//	lookup=NAME     the addresses of a name, as soon as there are any
//	reach=HOST:PORT a TCP connection, as soon as one is accepted
//	get=URL         the status of a GET
//	eat=MEGABYTES   take so much memory and hold it
//	serve=PORT      answer every GET with 200, until SIGTERM ends it with 143
//	hold            wait for SIGTERM, and end with 143
//	exit=CODE       end
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	patience = 60 * time.Second
	interval = 100 * time.Millisecond
	// As for a stage.
	toldToStop = 143
)

func main() {
	for _, argument := range os.Args[1:] {
		verb, value, _ := strings.Cut(argument, "=")
		if err := do(verb, value); err != nil {
			fmt.Printf("%s: %v\n", argument, err)
			os.Exit(1)
		}
	}
}

func do(verb, value string) error {
	switch verb {
	case "say":
		fmt.Println(value)
	case "message":
		return os.WriteFile("/dev/termination-log", []byte(value), 0o644)
	case "who":
		fmt.Printf("user %d\n", os.Getuid())
	case "write":
		return os.WriteFile(value, []byte("probe\n"), 0o644)
	case "refused":
		if err := os.WriteFile(value, []byte("probe\n"), 0o644); err == nil {
			return fmt.Errorf("could be written")
		}
	case "lookup":
		return until(func(ctx context.Context) (string, error) {
			addresses, err := net.DefaultResolver.LookupHost(ctx, value)
			return value + " is " + strings.Join(addresses, " "), err
		})
	case "reach":
		return until(func(ctx context.Context) (string, error) {
			connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", value)
			if err == nil {
				connection.Close()
			}
			return "reached " + value, err
		})
	case "get":
		return until(func(ctx context.Context) (string, error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, value, nil)
			if err != nil {
				return "", err
			}
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				return "", err
			}
			answer.Body.Close()
			return fmt.Sprintf("%s answered %d", value, answer.StatusCode), nil
		})
	case "eat":
		return eat(value)
	case "serve":
		go func() {
			http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) { answer.WriteHeader(http.StatusOK) })
			fmt.Println(http.ListenAndServe(":"+value, nil))
			os.Exit(1)
		}()
		fallthrough
	case "hold":
		told := make(chan os.Signal, 1)
		signal.Notify(told, syscall.SIGTERM)
		<-told
		os.Exit(toldToStop)
	case "exit":
		code, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		os.Exit(code)
	default:
		return fmt.Errorf("unknown")
	}
	return nil
}

// until tries again for a minute, for names and addresses of a pod come into being after it does.
func until(try func(context.Context) (string, error)) error {
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		said, err := try(ctx)
		cancel()
		if err == nil {
			fmt.Println(said)
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(interval)
	}
}

// Global, so that nothing takes it for garbage.
var held [][]byte

func eat(value string) error {
	megabytes, err := strconv.Atoi(value)
	if err != nil {
		return err
	}
	for range megabytes {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += os.Getpagesize() {
			block[i] = 1
		}
		held = append(held, block)
	}
	fmt.Printf("holds %d MB\n", len(held))
	return nil
}
