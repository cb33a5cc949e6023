"""What figures and widgets are made of, from pixels to interactive pictures; each imports only from those above it.

drawing      tensors to planes, colours, PNG            pictures     images, fields, grids, legends as pixels
controls     sliders, choices; what a Scene is          scenes       comparison, field, folds
volumes      planes of a volume                         sliced       the scenes in a plane of a volume
panels       one quantity each; quantities: of a pair   slices       any panels, linked by a cross hair
stages       levels, time                               compositions a map and what should undo it
sweeps       stored results behind one slider           ablations    trained variants, chosen by their switches
timelapse    a training                                 static       all of it for a page without a kernel
dots         numbers on a scale                         scoreboard   methods on pairs, and the case behind each dot
places, pulling, landscapes, landscape_view, races, ripples, scales, roundtrips, iterations, meetings, matching,
clustering, wavelets, growing, intake_doctor, claims_board: what single tutorials show; cells: 3 x 3 neighbourhoods
with their numbers; columns: the scoreboard's upper half
"""
