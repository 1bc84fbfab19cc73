// The order of lists, whatever order the host gives: VMs by name, what belongs to one by its time.
#ifndef RP_CLI_ORDER_H
#define RP_CLI_ORDER_H

#include "hyperv/host_connection.h"

void rp_cli_order_vms(struct rp_inventory *inventory); // "vm2" before "vm10"; those of one name by id
// Those of one time, or of none, by id.
void rp_cli_order_snapshots(struct rp_snapshots *snapshots);
void rp_cli_order_points(struct rp_reference_points *points);

#endif
