from clinic.asgi import application
from mangum import Mangum

handler = Mangum(application, lifespan="off")
