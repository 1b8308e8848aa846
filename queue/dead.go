package queue

// Dead is a Delivery of a ticket that the broker has given up: by the broker's count it was
// delivered too often, so it was put aside. Only adapters that were told where such tickets are
// deliver them.
//
// It says nothing of its request, which may have ended, or be another ticket's. A receiver looks at
// the log as for any ticket; only where it would start an attempt, it ends the request as failed
// instead, then calls Ack. Extend and Retry work as on any other Delivery.
type Dead interface {
	Delivery

	// Dead returns why the broker gave the ticket up, for those who operate it.
	Dead() string
}
