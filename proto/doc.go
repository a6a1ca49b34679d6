// Package proto is the root of the wire types between Quartet's daemons. Each
// folder holds one .proto and the code generated from it (generate.sh); etcd's
// own types are imported from go.etcd.io/etcd/api/v3 and never generated again.
package proto
