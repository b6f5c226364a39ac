select {
case msg := <-messages:
	fmt.Println("received", msg)
case <-time.After(2 * time.Second):
	fmt.Println("timeout")
}
