// What holds the namespaces of a pod while its containers come and go: it waits to be told to stop, and takes in orphans.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Where a pod shares its process namespace, this is process 1; ignored, the children that it inherits leave no zombies.
	signal.Ignore(syscall.SIGCHLD)
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM)
	<-told
}
