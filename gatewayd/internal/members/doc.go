// Package members is etcd's Cluster service, and the choice of the member that
// a gateway speaks for.
//
// Membership lives in consensusd; where clients reach a member is what the
// gateways that speak for it have put beside their sessions in the stores. A
// list joins the two.
package members
