-- Holds a new connection while no member is the primary. Otherwise HAProxy would close it, and PgBouncer would refuse
-- all its clients after that.
local HOLD_SECONDS = 5

core.register_action("hold", { "tcp-req" }, function(txn)
  for _ = 1, HOLD_SECONDS * 20 do
    if txn.f:nbsrv() > 0 then
      return
    end
    core.msleep(50)
  end
end)
