"""The ADS server: snapshots per node, sessions per stream, pushes per store revision, status from ACK and NACK.

How the parts join, and what an application constructs::

    board = StatusBoard(clock=time.time)                               # control_plane.xds.status
    pusher = Pusher(store, mesh, board, options=PushOptions())         # control_plane.xds.push
    await pusher.start()                                               # loads the view, follows the store
    server = XdsServer(pusher, trust_domain="mesh.local", options=ServerOptions())   # control_plane.xds.server
    port = await server.listen_tls("0.0.0.0:15012", ServerIdentity(key_pem, chain_pem, client_roots_pem))
    await server.listen_plaintext("127.0.0.1:15010")                   # optional, loopback only
    await server.start()
    server.rotate(ServerIdentity(...))                                 # whenever the certificate or bundle changes
    pusher.refresh()                                                   # whenever settings (trust bundle) change
    await server.stop(grace=5.0)
    await pusher.stop()
    setup_routes(app, pusher)                                          # control_plane.xds.debug: /debug/syncz

``mesh`` is what joins registry and translate (:class:`control_plane.xds.mesh.Mesh`).
"""
