from pinfold.policy.names import (
    climbs,
    join,
    normalise,
    under,
    wants_directory,
)  # moved here for good once the policy part is done
