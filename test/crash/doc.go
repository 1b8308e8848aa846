// Package crash kills, stops and restarts the processes of a real fleet at random, cuts its
// clients' connections at random bytes, and checks every guarantee on what clients saw and
// what handlers did. Its driver speaks only the wire protocol: it shares no code with the
// library's clients, whose faults it would share too.
//
// A fleet keeps its requests in memory, in a directory, on a NATS cluster, or on emulators of SQS
// and DynamoDB, which lose all when they end, and so are stopped and continued alone.
//
// [Run] starts the fleet, loads it for a while under chaos, lets it recover, and reports. The
// same seed gives the same mix of requests and the same schedule of faults; what they meet is up
// to the machine.
package crash
