// An HTTP/2 server without TLS on Go's own stack, for h2spec to call through the proxy.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
)

// More than the windows that h2spec sets, so that its answers come in pieces.
var answer = strings.Repeat("evenkeel", 64)

func main() {
	listen := flag.String("listen", "", "address")
	flag.Parse()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Protocols: &protocols, Handler: http.HandlerFunc(serve)}
	fmt.Printf("ready %s\n", listener.Addr())
	log.Fatal(server.Serve(listener))
}

func serve(response http.ResponseWriter, request *http.Request) {
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return
	}
	response.Header().Set("Content-Length", fmt.Sprint(len(answer)))
	io.WriteString(response, answer)
}
