/** Said where a peer answers short messages, and long ones are never answered. Node can neither see nor lower the size of packets. */
export const MTU_HINT =
  'short messages get through, long ones perhaps not: `ping -M do -s 1472 ADDRESS` shows whether packets of 1500 bytes reach that machine; if not, mend the switch or tunnel between, or lower the MTU of the network cards'
